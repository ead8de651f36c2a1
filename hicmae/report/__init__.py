"""One page about a run: ``hicmae report``. A file for each section of it; ``run.py`` reads what a run left behind."""
