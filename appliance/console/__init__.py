"""Pages for people: signing in, letting a device in, sessions. Plain forms; scripts only for passkeys."""
