# `services.headwater`: a whole Headwater box. One file per concern; what they share is computed
# once, here, and passed on as `headwater`.
{ config, lib, pkgs, ... }:
let
  facts = import ../facts.nix;
  cfg = config.services.headwater;
  check = import ../check.nix { inherit lib facts; };
  form = check.form cfg.settings;
  # Settings of a wrong form cannot be planned; the evaluation then goes on without them, as far as
  # the assertions, which say what is wrong.
  plan = import ../plan.nix { inherit lib facts; } {
    inherit (cfg) role secrets;
    settings = if form == [ ] then cfg.settings else { };
  };
in
{
  imports = [
    ./settings.nix
    ./service.nix
    ./relay.nix
    ./sockets.nix
    ./firewall.nix
    ./secrets.nix
    ./upgrade.nix
  ];

  options.services.headwater = {
    enable = lib.mkEnableOption "Headwater, a control server for Tailscale clients";
    package = lib.mkPackageOption pkgs "headwater" { };
  };

  config = {
    _module.args.headwater = {
      inherit facts plan;
      mistakes = map check.message (if form != [ ] then form else check.meaning plan);
      unit = import ./unit.nix { inherit lib facts plan cfg; };
    };
  };
}
