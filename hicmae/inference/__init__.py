"""Exported models on anyone's files: windows along a video, features and emotions of each. Needs the core alone."""
