"""Music for recorded instruments: `piece.make_piece` composes it and plays it."""
