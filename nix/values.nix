# Values of settings that are Nix's own: paths and derivations, where a site file has text.
{ lib }:
let
  inherit (builtins) isAttrs isFunction isList isPath isString;

  # What would be copied into the store, or is there.
  isFile = v: isPath v || (isAttrs v && v ? outPath);
  mapped = f: v:
    if isFile v || isFunction v then f v
    else if isAttrs v then lib.mapAttrs (_: mapped f) v
    else if isList v then map (mapped f) v
    else v;
  shown = v:
    if isFunction v then "a function"
    else if isPath v then toString v
    else v.name or "a derivation";
in
{
  inherit isFile;
  # Settings as a site file has them. Copies paths into the store: only for settings that may be there.
  plain = mapped (v: "${v}");
  # A value for people; copies nothing.
  show = v:
    if isString v then "\"${builtins.unsafeDiscardStringContext v}\""
    else if isPath v then "the Nix path ${toString v}"
    else if isFile v then "the derivation ${v.name or "without a name"}"
    else if isFunction v then "a function"
    else builtins.toJSON (mapped shown v);
  # A path, as text, of a file in the store, or of a link in /etc that NixOS makes to one.
  inStore = etc: path:
    builtins.hasContext path
    || lib.hasInfix "${builtins.storeDir}/" path
    || (lib.hasPrefix "/etc/" path && etc ? ${lib.removePrefix "/etc/" path});
}
