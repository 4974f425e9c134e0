"""Results that no run made: plain documents of one pair, and of many pairs, from planted means."""

import numpy as np

from kernelgan import results
from kernelgan.evaluation import verdict

FLOORS = {"random": 0.45, "attribute_only": 0.60, "object_only": 0.55, "average": 0.58}
QUADRANTS = ("a&o", "a&!o", "!a&o", "!a&!o")
ATTRIBUTES = ("black", "white", "grey", "red", "brown", "yellow", "green", "blue", "purple")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NETWORKS = 24
PAIRS = 55

METHODS = {
    "random": ("null", 0.44, 1.6),
    "gaussian": ("null", 0.45, 1.5),
    "pixels": ("null", 0.52, None),
    "colour_histogram": ("null", 0.51, None),
    "attribute_only": ("parent", 0.58, 0.02),
    "object_only": ("parent", 0.54, 0.03),
    "average": ("merge", 0.55, 0.62),
    "rebasin_average": ("merge", 0.59, 0.58),
    "concatenate": ("merge", 0.62, 0.81),
    "zipit": ("merge", 0.61, 0.66),
    "noise_a2b": ("merge", 0.55, 0.93),
    "noise_b2a": ("merge", 0.53, 0.97),
    "cyclegan_a2b": ("generated", 0.57, 0.94),
    "cyclegan_b2a": ("generated", 0.60, 0.99),
    "hypernetwork": ("generated", 0.64, 1.12),
    "distilled": ("trained apart", 0.73, 1.04),
    "half_width_pair": ("same size", 0.72, None),
    "and_ensemble": ("two nets", 0.76, None),
    "trained_on_conjunction": ("reference", 0.83, 1.2),
}
"""Of a full table by name: kind, typical figure of merit, novelty; nothing knows a "hypernetwork"."""

LABELS = {
    "and_ensemble": "both parents run side by side",
    "trained_on_conjunction": "networks trained on the conjunction itself",
    "attribute_only": "the {attribute} parents alone",
    "average": "the average of both parents' weights",
}


def run_of(*pairs, **more):
    """The typed and judged run of plain records of pairs, or of a document."""
    return verdict.judged(results.from_document({"pairs": list(pairs), **more}))


def verdict_on(made):
    """The verdict on the plain record of one pair."""
    return run_of(made).pairs[0].verdict


def statistic(mean, half=0.01):
    return {"mean": mean, "ci95": [mean - half, mean + half], "sd": 0.02, "best": mean + 0.05}


def placebos(kept=0.4, p_value=0.001, fall=0.1):
    """Of a generated method: what it scores with either side's parents exchanged.

    Args:
      kept: the scores.
      p_value: of the test that the gain falls by half.
      fall: how far below half it is.
    """
    return {
        f"{side}_random": {
            "parents": "random networks",
            "auroc": statistic(kept),
            "test": {"difference": statistic(fall), "p_value": p_value, "p_adjusted": p_value},
        }
        for side in ("attribute", "object")
    }


def method(kind, mean, half=0.01, quadrants=True, **more):
    auroc = {"vs_rest": statistic(mean, half)}
    if quadrants:
        names = ("vs_attribute_only", "vs_object_only", "vs_neither", "worst")
        auroc = {name: statistic(mean, half) for name in names}
    new = {"distance": statistic(0.9, 0.03), "error_overlap": statistic(0.3)}
    return {
        "kind": kind,
        "novelty": new if kind == "generated" else None,
        "placebos": placebos() if kind == "generated" else None,
        "networks": 8,
        "parameters": 3674,
        "auroc": auroc,
        "recovered": {"mean": 0.5},
        **more,
    }


def planted_tests(methods, path="worst", half=0.01, factor=1.0):
    """TESTS of planted means: p is 0.0004 where the intervals are apart, else 0.4; `factor` corrects it."""
    means = {name: record["auroc"][path]["mean"] for name, record in methods.items()}
    made = {}
    for mine, record in methods.items():
        generated = record["kind"] == "generated"
        rivals = means if generated else [name for name in ("and_ensemble",) if name in means]
        made[mine] = {
            rival: {
                "difference": statistic(means[mine] - means[rival], half),
                "p_value": (p_value := 0.0004 if abs(means[mine] - means[rival]) > 2 * half else 0.4),
                "p_adjusted": min(1.0, factor * p_value),
            }
            for rival in rivals
            if rival != mine
        }
    return {name: record for name, record in made.items() if record}


def pair_result(generated=(0.50, 0.70), p_value=0.004, half=0.01, quadrants=True, **means):
    """A small result of black and cat; `means` plants (None: leaves out) methods not generated."""
    means = FLOORS | {"and_ensemble": 0.73, "trained_on_conjunction": 0.9} | means
    made = {
        name: method(METHODS[name][0], mean, half, quadrants, label=LABELS.get(name, ""))
        for name, mean in means.items()
        if mean is not None
    }
    a2b, b2a = generated
    made |= {"cyclegan_b2a": method("generated", b2a, half, quadrants)}
    made |= {"cyclegan_a2b": method("generated", a2b, half, quadrants)}
    best = "cyclegan_b2a" if b2a >= a2b else "cyclegan_a2b"
    return {
        "pair": {"attribute": "black", "object": "cat"},
        "data": {"source": "rendered", "test": {"a&o": 20}, "leaked": 0, "duplicates": 1},
        "methods": made,
        "tests": planted_tests(made, "worst" if quadrants else "vs_rest", half),
        "null_test": {"statistic": "auroc.worst", "method": best, "candidates": 2, "p_value": p_value},
    }


def enriched(made, attribute="black", thing="cat"):
    """A result of one pair with every other part of the contract added; changed in place."""
    made["pair"] = {"attribute": attribute, "object": thing}
    made["data"] = {
        "source": "rendered",
        "train": dict.fromkeys(QUADRANTS, 1200),
        "validation": dict(zip(QUADRANTS, (0, 200, 210, 220), strict=True)),
        "test": dict.fromkeys(QUADRANTS, 300) | {"rest": 7},
        **{"leaked": 0, "duplicates": 3, "near_duplicates": 12},
    }
    made["zoo"] = {
        side: {"balanced_accuracy": statistic(0.9), "auroc": statistic(0.95)}
        for side in ("attribute", "object")
    }
    generated = [name for name, record in made["methods"].items() if record["kind"] == "generated"]
    made["null_test"] |= {"observed": 0.7, "null_mean": 0.5}
    made["null_test"]["by_method"] = {
        name: {"mean_p_value": 0.0004, "best_p_value": 0.3, "smallest_best_p_value": 0.002}
        for name in generated
    }
    measures = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")
    for name, record in made["methods"].items():
        for key in ("balanced_accuracy", "average_precision", "recall"):
            record[key] = statistic(0.62)
        printed = {key: statistic(0.33) for key in measures[1:]}
        scores = {key: statistic(0.66) for key in measures} | {"as_printed": printed}
        record["clustering"] = {"kmeans": scores, "dbscan": scores} if name != "average" else None
        record["cosine_similarity"] = {key: statistic(0.4) for key in ("within", "across", "margin")}
        distance = METHODS[name][2]
        record["novelty"] = distance and {
            "distance": statistic(distance, 0.03),
            "error_overlap": statistic(0.3),
        }
        record["description"] = f"What {name} is."
        record["label"] = LABELS.get(name, "")
    return made


def full_pair(attribute="black", thing="cat", seed=0, half=0.02, factor=3.0):
    """A result of one pair with all nineteen methods, scattered about the typical."""
    rng = np.random.default_rng(seed)
    ease = 0.08 * rng.standard_normal()
    means = {
        name: float(np.clip(mean + ease + 0.025 * rng.standard_normal(), 0.2, 0.98))
        for name, (_, mean, _) in METHODS.items()
    }
    made = {
        "methods": {name: method(METHODS[name][0], mean, half) for name, mean in means.items()},
        "null_test": {"statistic": "auroc.worst", "candidates": 3, "p_value": 0.001, "p_adjusted": 0.02},
    }
    enriched(made, attribute, thing)
    for name in ("pixels", "colour_histogram"):
        made["methods"][name] |= {"networks": 1, "parameters": None, "clustering": None}
    made["methods"]["and_ensemble"]["parameters"] = 7348
    floor, reference = means["random"], means["trained_on_conjunction"]
    for name, mean in means.items():
        made["methods"][name]["recovered"] = {"mean": (mean - floor) / (reference - floor)}
    made["data"]["test"]["a&o"] = int(rng.integers(30, 400))
    made["tests"] = planted_tests(made["methods"], half=half, factor=factor)
    generated = [name for name, record in made["methods"].items() if record["kind"] == "generated"]
    made["null_test"]["method"] = max(generated, key=means.__getitem__)
    return made


def _over(values):
    values = np.asarray(values, float)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    mean = float(values.mean())
    return {"mean": mean, "ci95": [mean - half, mean + half], "sd": float(values.std()), "best": None}


def overall(pairs, factor=1.0):
    """The record over pairs: means of means, and tests of planted significance."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair["methods"]))
    made = {}
    for name in names:
        records = [pair["methods"][name] for pair in pairs if name in pair["methods"]]
        novelty = [record["novelty"] for record in records if record.get("novelty")]
        recovered = [record["recovered"]["mean"] for record in records if record.get("recovered")]
        made[name] = {
            "kind": records[0]["kind"],
            "label": records[0].get("label", ""),
            "pairs": len(records),
            "auroc": {"worst": _over([record["auroc"]["worst"]["mean"] for record in records])},
            "recovered": _over(recovered) if recovered else None,
            "novelty": {
                key: _over([record[key]["mean"] for record in novelty])
                for key in ("distance", "error_overlap")
            }
            if novelty
            else None,
            "against": None,
            "placebos": records[0].get("placebos"),
        }
        both = [pair for pair in pairs if "and_ensemble" in pair["methods"] and name in pair["tests"]]
        tests = [pair["tests"][name]["and_ensemble"] for pair in both if name != "and_ensemble"]
        if tests:
            differences = np.array([test["difference"]["mean"] for test in tests])
            clear = np.array([test["p_adjusted"] < 0.05 for test in tests])
            made[name]["against"] = {
                "rival": "and_ensemble",
                "difference": _over(differences),
                "wins": int((differences > 0).sum()),
                "losses": int((differences < 0).sum()),
                "clear_wins": int((clear & (differences > 0)).sum()),
                "clear_losses": int((clear & (differences < 0)).sum()),
                "p_value": 0.0002,
            }
    return {"pairs": len(pairs), "methods": made, "tests": planted_tests(made, factor=factor)}


def many_pairs(count=PAIRS):
    """A document of `count` of the 90 pairs of nine attributes and ten objects; the others are skipped."""
    names = [(attribute, thing) for attribute in ATTRIBUTES for thing in OBJECTS]
    order = np.random.default_rng(3).permutation(len(names))
    run = [names[i] for i in sorted(order[:count])]
    pairs = [full_pair(*name, seed=seed) for seed, name in enumerate(run)]
    skipped = [
        {"attribute": attribute, "object": thing, "reason": f"{index % 30} test images of both, 30 needed"}
        for index, (attribute, thing) in enumerate(names)
        if (attribute, thing) not in run
    ]
    return {"name": "pairs", "seed": 0, "pairs": pairs, "skipped": skipped, "overall": overall(pairs, 3.0)}


def arrays_of(made, seed=0):
    """The arrays of a pair, every one of the contract."""
    rng = np.random.default_rng(seed)
    points = np.repeat(np.arange(4), 30).astype(np.int8)
    arrays = {
        "test_images": rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8),
        "test_quadrant": np.tile(np.arange(4, dtype=np.int8), 12),
        "embedding_quadrant": points,
    }
    for name, record in made["methods"].items():
        mean = record["auroc"]["worst"]["mean"]
        arrays[f"answers/{name}"] = rng.random(48, dtype=np.float32)
        arrays[f"worst/{name}"] = (mean + 0.05 * rng.standard_normal(NETWORKS)).clip(0, 1)
        if record.get("novelty"):
            distance = record["novelty"]["distance"]["mean"]
            arrays[f"novelty/{name}"] = (distance + 0.08 * rng.standard_normal(16)).clip(0, None)
        arrays[f"embedding/{name}"] = rng.standard_normal((120, 2)) + points[:, None]
        arrays[f"cluster/{name}"] = rng.integers(0, 2, 120)
        arrays[f"cosine/{name}"] = 0.6 * np.eye(4) + 0.4 * rng.random((4, 4))
    for role in ("attribute_parent", "object_parent", "cyclegan_a2b", "cyclegan_b2a"):
        arrays[f"kernels/conv1/{role}"] = rng.standard_normal((3, 5, 5, 3, 6)).astype(np.float32)
        arrays[f"kernels/conv2/{role}"] = rng.standard_normal((3, 5, 5, 6, 16)).astype(np.float32)
    for side in ("attribute", "object"):
        falling = np.exp(-np.arange(6) / 3) + 0.05 * rng.random((NETWORKS, 6))
        for loss in ("train_loss", "validation_loss"):
            arrays[f"history/zoo_{side}/{loss}"] = falling + 0.1 * (loss != "train_loss")
        for score in ("validation_balanced_accuracy", "validation_auroc"):
            arrays[f"history/zoo_{side}/{score}"] = 1 - 0.5 * falling
    for layer in ("conv1", "conv2"):
        for loss in ("generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b", "cycle"):
            arrays[f"history/cyclegan/{layer}/{loss}"] = 0.2 + np.exp(-np.arange(500) / 90) * rng.random(500)
    return {f"{'_'.join(made['pair'].values())}/{name}": value for name, value in arrays.items()}
