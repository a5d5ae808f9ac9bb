"""facade: the stores behind the memory tier, each imported by whoever opens it: LMDB on disk, Redis or Valkey."""
