"""numbarnn over time. From this folder's parent: ``asv run --environment existing --quick``; see CONTRIBUTING.md."""
