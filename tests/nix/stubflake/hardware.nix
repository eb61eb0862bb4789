# Options of the hosts that only whole machines have.
{ lib, ... }:
let any = lib.mkOption { type = lib.types.attrsOf lib.types.anything; default = { }; }; in
{
  options = {
    hardware = any;
    nixpkgs = any;
  };
}
