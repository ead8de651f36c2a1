"""Corpora in miniature, as they are unpacked: right names, right label files, tiny real media."""
