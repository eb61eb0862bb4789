# The formatter of RFC 166 by its newest name: before NixOS 25.11 another program was called nixfmt.
{ pkgs }:
if builtins.compareVersions pkgs.lib.trivial.release "25.11" >= 0 then pkgs.nixfmt else pkgs.nixfmt-rfc-style
