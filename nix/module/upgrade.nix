# Unattended upgrades of the whole machine from a flake, and the way back by itself when the server is
# not well afterwards.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.headwater;
  upgrade = cfg.upgrade;
  # A unit is active when it has said that it serves; the server is asked by its local socket too.
  isActive = one: "${pkgs.systemd}/bin/systemctl is-active --quiet ${one.unit}.service";
  isWell = lib.concatStringsSep " && " (
    map isActive cfg.made.plan.services
    ++ lib.optional (cfg.role == "server") "${lib.getExe cfg.package} health"
  );
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
      description = ''
        Go back to the configuration before if the server is not well after an upgrade: its services are
        active and `headwater health` says so. A host with the role `relay` has no local socket to ask:
        there the relay's service must be active.
      '';
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
    systemd.services.nixos-upgrade.postStart = lib.mkIf upgrade.rollback ''
      for _ in $(seq ${toString upgrade.patience}); do
        if ${isWell}; then exit 0; fi
        sleep 1
      done
      echo "headwater is not well after the upgrade: going back"
      ${config.system.build.nixos-rebuild}/bin/nixos-rebuild switch --rollback
      exit 1
    '';
  };
}
