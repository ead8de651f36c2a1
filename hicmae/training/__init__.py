"""What both jobs share around the trainer: optimiser and schedule, logging, stopping, command line.

The only part of the library that knows Lightning; models, losses, media and data do not.
"""
