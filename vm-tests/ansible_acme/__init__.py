"""A certificate from an authority, behind the role's firewall and over an upgrade."""
