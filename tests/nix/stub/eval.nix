# eval { lib, modules, … }: evaluates modules as NixOS would; gives config, the texts of the units, and
# the messages of failed assertions.
{ lib, modules, specialArgs ? { }, pkgs ? import ./pkgs.nix { inherit lib; } }:
let
  result = lib.evalModules {
    inherit specialArgs;
    modules = [
      ./nixos.nix
      { _module.args.pkgs = pkgs; }
    ] ++ modules;
  };
  inherit (result) config;
  word = v: if v == true then "true" else if v == false then "false" else toString v;
  line = key: v: "${key}=${word v}\n";
  section = name: directives:
    "[${name}]\n" + lib.concatStringsSep "" (lib.mapAttrsToList (key: v: lib.concatStringsSep "" (map (line key) (lib.toList v))) directives);
  words = lib.filterAttrs (_: v: v != [ ] && v != "");
  head = u: section "Unit" (words {
    Description = u.description;
    Wants = u.wants;
    After = u.after;
    Before = u.before;
    Requires = u.requires;
  } // u.unitConfig);
  install = u: section "Install" (words { WantedBy = u.wantedBy; });
  service = u: head u + section "Service" u.serviceConfig + install u;
  socket = u: head u + section "Socket" (words { ListenStream = u.listenStreams; ListenDatagram = u.listenDatagrams; } // u.socketConfig) + install u;
  named = suffix: lib.mapAttrs' (n: lib.nameValuePair "${n}.${suffix}");
in
{
  inherit config;
  inherit (result) options;
  failed = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  units = named "service" (lib.mapAttrs (_: service) config.systemd.services)
    // named "socket" (lib.mapAttrs (_: socket) config.systemd.sockets);
}
