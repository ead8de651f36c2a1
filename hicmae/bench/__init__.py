"""What ``hicmae bench`` measures: each stage of training on its own, the whole job, and both beside the reference.

Nothing here is imported by the rest of the library.
"""
