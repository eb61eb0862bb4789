# As much of `pkgs` as our modules touch: packages are sets that look like derivations, written
# files keep their text so that a test can look at it.
{ lib }:
let
  place = name: "/nix/store/00000000000000000000000000000000-${name}";
  fake = name: { type = "derivation"; inherit name; pname = name; version = "0"; outPath = place name; meta.mainProgram = name; };
  file = name: text: fake name // { inherit text; };
  json = {
    type = with lib.types; attrsOf anything;
    generate = name: value: file name (builtins.toJSON value) // { inherit value; };
  };
in
{
  inherit lib;
  headwater = fake "headwater";
  coreutils = fake "coreutils";
  systemd = fake "systemd";
  nixos-rebuild = fake "nixos-rebuild";
  formats.json = _: json;
  writeText = file;
  writeShellScript = file;
  runCommand = name: environment: text: file name text // { inherit environment; };
}
