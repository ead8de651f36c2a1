"""Checkpoints of the authors' code (``sunlicai/HiCMAE``): their names and shapes to ours and back, strictly.

Their files are pickles that also hold an ``argparse.Namespace``. They are read with torch's restricted unpickler;
every foreign object in them becomes an inert placeholder, so that no code of the file runs.
"""

from hicmae.reference.architecture import infer_architecture, infer_config, infer_spec
from hicmae.reference.files import ReferenceFile, read_file, read_state
from hicmae.reference.loading import load_backbone, load_pretraining, load_recognizer, to_reference
from hicmae.reference.names import our_name, reference_name

__all__ = [
    "ReferenceFile",
    "infer_architecture",
    "infer_config",
    "infer_spec",
    "load_backbone",
    "load_pretraining",
    "load_recognizer",
    "our_name",
    "read_file",
    "read_state",
    "reference_name",
    "to_reference",
]
