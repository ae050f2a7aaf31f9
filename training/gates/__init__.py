"""Gates: what a new codec, decoder or text encoder must reach before it ships, by tools that this
project did not write (`requirements-gates.txt`). `python -m gates -h` says how."""
