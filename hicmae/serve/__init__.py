"""A page in the browser: drop a video on it and see what a recogniser says along it. Needs the extra ``demo``."""
