# Turns a service and its sockets, as nix/plan.nix gives them, into definitions of NixOS units. Every
# directive comes from appliance/deploy/facts.json.
{ lib, facts, plan, cfg }:
let
  inherit (facts) directives;
  names = group: "${group.unit}.socket";
  identity = [ "User" "Group" "NotifyAccess" "StateDirectoryMode" "UMask" ];
  owned = options: options
    // lib.optionalAttrs (options ? SocketUser) { SocketUser = cfg.user; SocketGroup = cfg.group; };
in
{
  service = one: {
    inherit (one) description;
    wantedBy = [ "multi-user.target" ];
    wants = [ "network-online.target" ];
    after = one.after ++ map names one.sockets;
    requires = map names one.sockets;
    unitConfig = directives.unit;
    # A setting that a reload takes over reloads; any other one restarts, without the pause between
    # stop and start in which the rest of the system is switched. Connections wait in the sockets.
    stopIfChanged = false;
    restartTriggers = [ plan.restartDigest ];
    # Limits and times give way to a machine's own; who the service is and what it may do does not.
    serviceConfig = lib.mapAttrs (_: lib.mkDefault) (removeAttrs directives.service identity) // {
      Type = "notify-reload";
      ExecStart = "${lib.getExe cfg.package} ${one.command} -c /etc/headwater/config.json";
      StateDirectory = plan.stateDirectory;
      Sockets = map names one.sockets;
    }
    // lib.optionalAttrs (cfg.supplementaryGroups != [ ]) { SupplementaryGroups = cfg.supplementaryGroups; }
    // lib.optionalAttrs (plan.credentials != { }) {
      LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") plan.credentials;
    }
    // lib.getAttrs identity directives.service
    // { User = cfg.user; Group = cfg.group; }
    // directives.hardening;
  };

  sockets = one: lib.listToAttrs (map
    (group: lib.nameValuePair group.unit {
      description = "Headwater sockets: ${group.purpose}";
      wantedBy = [ "sockets.target" ];
      listenStreams = group.stream;
      listenDatagrams = group.datagram;
      socketConfig = {
        FileDescriptorName = group.purpose;
        Service = "${group.service}.service";
      } // owned group.options;
    })
    one.sockets);
}
