"""Face tracks: one smooth square around the face of a clip, and the video of that square. Needs the extra ``faces``.

>>> from hicmae.faces import FaceTracker, write_face_clip
>>> row = write_face_clip(clip, FaceTracker(margin=0.3), Path("faces/clip.mp4"))
"""

from hicmae.faces.detector import DETECTORS, FaceBox, FaceDetector
from hicmae.faces.face_clip import write_face_clip
from hicmae.faces.tracker import FaceNotFoundError, FaceTrack, FaceTracker

__all__ = [
    "DETECTORS",
    "FaceBox",
    "FaceDetector",
    "FaceNotFoundError",
    "FaceTrack",
    "FaceTracker",
    "write_face_clip",
]
