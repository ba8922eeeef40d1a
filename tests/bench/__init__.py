"""The repository's own benchmark: `make bench`. Speeds are ratios within one round; tests assert none."""
