"""Host-side evaluation: scores, intervals, clustering, similarity, novelty and the matched null."""
