# As much of `pkgs` as our modules touch: packages are sets that look like derivations, written
# files keep their text so that a test can look at it.
{ lib }:
let
  place = name: "/nix/store/00000000000000000000000000000000-${name}";
  fake = name: { type = "derivation"; inherit name; pname = name; version = "0"; outPath = place name; meta.mainProgram = name; };
  file = name: text: fake name // { inherit text; };
  json = {
    type = lib.types.anything;
    generate = name: value: file name (builtins.toJSON value) // { inherit value; };
  };
in
{
  inherit fake lib;
  # No overlay: of ours there is only what the module calls.
  callPackage = file: _: fake (if baseNameOf file == "package.nix" then "headwater" else throw "no ${file} here");
  coreutils = fake "coreutils";
  systemd = fake "systemd";
  formats.json = _: json;
  writeText = file;
  writeShellScript = file;
  runCommand = name: environment: text: file name text // { inherit environment; };
}
