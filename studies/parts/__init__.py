"""What each part of `reduce` buys, over the development pairs of a finished run."""
