"""The command line of facekit."""
