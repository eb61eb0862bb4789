# What nix/package.nix, nix/oci.nix and nix/formatter.nix come to, with a `pkgs` of their own.
#   versions   JSON: versions of Python packages that are not new enough by themselves
#   release    of NixOS
{ versions ? "{}", release ? "26.11" }:
let
  lib = import ./minilib.nix // {
    trivial = { inherit release; };
    fileset = { toSource = { root, ... }: root; unions = _: null; };
  };
  inherit (import ./stub/pkgs.nix { inherit lib; }) fake;
  project = import ../../nix/pyproject.nix { inherit lib; };
  given = builtins.fromJSON versions;
  python3.pkgs = lib.genAttrs project.names (name: fake name // { version = given.${name} or "999"; })
    // { buildPythonApplication = made: fake made.pname // made; };
  package = import ../../nix/package.nix { inherit lib python3; };
  image = import ../../nix/oci.nix {
    inherit lib;
    headwater = package;
    cacert = fake "cacert";
    writeTextDir = place: text: fake (baseNameOf place) // { inherit place text; };
    dockerTools.buildLayeredImage = made: made;
  };
in
{
  inherit (package) version;
  dependencies = map (each: each.pname) package.dependencies;
  image = removeAttrs image [ "contents" ] // {
    contents = map (each: each.pname) image.contents;
    files = lib.listToAttrs (map (each: lib.nameValuePair each.place each.text) (lib.filter (each: each ? place) image.contents));
  };
  formatter = import ../../nix/formatter.nix {
    pkgs = { inherit lib; nixfmt = "nixfmt"; nixfmt-rfc-style = "nixfmt-rfc-style"; };
  };
}
