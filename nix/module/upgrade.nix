# Unattended upgrades of the whole machine from a flake, and the way back by itself when the server is
# not well afterwards.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.headwater;
  upgrade = cfg.upgrade;
in
{
  options.services.headwater.upgrade = {
    enable = lib.mkEnableOption "unattended upgrades of this machine";
    flake = mkOption {
      type = types.str;
      default = "";
      example = "github:example/machines#vps";
      description = "The flake that the machine is built from.";
    };
    dates = mkOption {
      type = types.str;
      default = "04:40";
      description = "When to upgrade, as systemd.time(7) has it.";
    };
    rollback = mkOption {
      type = types.bool;
      default = true;
      description = "Go back to the configuration before if the server is not well after an upgrade.";
    };
    patience = mkOption {
      type = types.ints.between 1 600;
      default = 60;
      description = "Seconds in which the server must be well after an upgrade.";
    };
  };

  config = lib.mkIf (cfg.enable && upgrade.enable) {
    assertions = [
      {
        assertion = upgrade.flake != "";
        message = "services.headwater.upgrade.flake: found nothing; allowed: a flake and its configuration; fix: set it, like \"github:example/machines#vps\", or turn services.headwater.upgrade.enable off";
      }
    ];
    system.autoUpgrade = {
      enable = true;
      flake = upgrade.flake;
      dates = upgrade.dates;
      randomizedDelaySec = "20min";
    };
    systemd.services.nixos-upgrade.postStart = lib.mkIf (upgrade.rollback && cfg.role == "server") ''
      for _ in $(seq ${toString upgrade.patience}); do
        if ${lib.getExe cfg.package} health; then exit 0; fi
        sleep 1
      done
      echo "headwater is not well after the upgrade: going back"
      ${lib.getExe pkgs.nixos-rebuild} switch --rollback
      exit 1
    '';
  };
}
