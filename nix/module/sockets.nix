# NixOS leaves a socket unit that has changed as it was, so that nothing is lost while it switches.
# This unit hears of the change, as a reload, and restarts sockets and services together.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.headwater;
  inherit (cfg.made) plan;
in
{
  config = lib.mkIf cfg.enable {
    systemd.services.headwater-sockets = {
      description = "Headwater sockets, after a change";
      wantedBy = [ "multi-user.target" ];
      after = map (group: "${group.unit}.socket") plan.sockets;
      reloadTriggers = [ (builtins.hashString "sha256" (builtins.toJSON plan.sockets)) ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${pkgs.coreutils}/bin/true";
        ExecReload = "${pkgs.systemd}/bin/systemctl try-restart headwater*.socket";
      };
    };
  };
}
