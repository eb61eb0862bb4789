"""DERP and STUN servers."""
