# Lists the options of our modules: name, type, default, example and meaning.
let
  lib = import ./minilib.nix;
  result = lib.evalModules {
    modules = [
      ./stub/nixos.nix
      { _module.args.pkgs = import ./stub/pkgs.nix { inherit lib; }; }
      ../../nix/module
      ../../nix/module/node.nix
    ];
  };
  text = v: if v == null then null else if v ? _type then v.text else builtins.toJSON v;
  list = path: options: lib.concatMap (name:
    let option = options.${name}; here = path ++ [ name ]; in
    if !(option.visible or true) then [ ]
    else if (option._type or "") == "option" then
      [
        {
          name = lib.showOption here;
          type = option.type.description;
          default = if option ? defaultText then text option.defaultText else if option ? default then builtins.toJSON option.default else null;
          example = if option ? example then text option.example else null;
          meaning = option.description;
        }
      ]
      ++ list here (option.type.getSubOptions here)
    else list here option) (builtins.attrNames options);
in
list [ "services" ] { inherit (result.options.services) headwater headwater-node; }
