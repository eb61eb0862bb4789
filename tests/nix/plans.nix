# What nix/check.nix and nix/plan.nix make of many settings at once; `sites` is the path of a
# JSON file: a list of { settings, role }.
{ sites, nixpkgs ? "" }:
let
  lib = if nixpkgs == "" then import ./minilib.nix else import (nixpkgs + "/lib");
  facts = import ../../nix/facts.nix;
  check = import ../../nix/check.nix { inherit lib facts; };
  one = { settings, role }:
    let
      form = check.form settings;
      plan = import ../../nix/plan.nix { inherit lib facts; } { inherit settings role; };
      mistakes = if form != [ ] then form else check.meaning plan;
    in
    if mistakes != [ ] then { mistakes = map (m: m.path) mistakes; }
    else {
      mistakes = [ ];
      inherit (plan) tcpPorts udpPorts stateDirectory credentials;
      services = map (s: { inherit (s) unit command after; }) plan.services;
      sockets = map (s: removeAttrs s [ "options" ] // { mode = s.options.SocketMode or null; }) plan.sockets;
    };
in
map one (lib.importJSON (/. + sites))
