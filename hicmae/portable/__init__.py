"""Exported models for runtimes other than this library: ONNX files, and programs of ``torch.export``.

``folder.py`` writes a folder, ``graphs.py`` says what goes into its files, ``formats.py`` how they are written and
run, ``checking.py`` holds them to the model they were made of, ``quantizing.py`` makes them smaller.
"""
