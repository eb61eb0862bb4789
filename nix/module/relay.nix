# The relay as a process of its own: beside the server (settings.derp.server.separate), or alone on a
# host (role = "relay").
{ config, lib, ... }:
let
  cfg = config.services.headwater;
  inherit (cfg.made) plan unit;
  relays = lib.filter (one: one.command == "relay") plan.services;
in
{
  options.services.headwater.role = lib.mkOption {
    type = lib.types.enum [ "server" "relay" ];
    default = "server";
    description = ''
      `server`: the whole control server. `relay`: a relay (DERP and STUN) on a host of its own;
      `settings.server_url` is then the control server's, which is asked whom to admit.
    '';
  };

  config = lib.mkIf cfg.enable {
    systemd.services = lib.listToAttrs (map (one: lib.nameValuePair one.unit (unit.service one)) relays);
    systemd.sockets = lib.mkMerge (map unit.sockets relays);
  };
}
