"""From a corpus as it was downloaded, or from a manifest, to checked clips in shards, with a report."""
