"""Endless procedural music with captions. Start at `render.make_piece`."""
