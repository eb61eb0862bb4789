# `services.headwater-node`: makes a NixOS machine a node of a Headwater tailnet. What may change later
# goes through `tailscale set`, at every start and every switch; the rest is said once, at the enrolment.
# Needs nothing of the server's module.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.headwater-node;
  values = import ../values.nix { inherit lib; };
  key = name: "services.headwater-node.${name}";
  isOneOf = names: flag: lib.any (name: flag == name || lib.hasPrefix "${name}=" flag) names;
  enrolling = isOneOf [ "--login-server" "--auth-key" "--authkey" ];
  setting = isOneOf ([ "--hostname" "--advertise-routes" "--advertise-exit-node" ]
    ++ lib.optional (cfg.acceptRoutes != null) "--accept-routes"
    ++ lib.optional (cfg.useExitNode != null) "--exit-node");

  yes = v: if v then "true" else "false";
  serves = cfg.routes != [ ] || cfg.exitNode;
  uses = cfg.acceptRoutes == true || !lib.elem cfg.useExitNode [ null "" ];
  # Each is always said, so that what is taken out of the configuration goes away on the node too.
  flags =
    [
      "--hostname=${if cfg.hostname == null then "" else cfg.hostname}"
      "--advertise-routes=${lib.concatStringsSep "," cfg.routes}"
      "--advertise-exit-node=${yes cfg.exitNode}"
    ]
    ++ lib.optional (cfg.acceptRoutes != null) "--accept-routes=${yes cfg.acceptRoutes}"
    ++ lib.optional (cfg.useExitNode != null) "--exit-node=${cfg.useExitNode}";
  given = type: description: mkOption {
    type = types.nullOr type;
    default = null;
    description = "${description} null leaves it to `services.tailscale`.";
  };
in
{
  options.services.headwater-node = {
    enable = lib.mkEnableOption "this machine as a node of a Headwater tailnet";
    serverUrl = mkOption {
      type = types.str;
      example = "https://hw.example.com";
      description = "The control server: its `server_url`.";
    };
    authKeyFile = mkOption {
      type = types.nullOr types.raw // { description = "null or absolute path, as text, of a file outside the Nix store"; };
      example = "/run/secrets/headwater-authkey";
      description = ''
        File with a pre-auth key (`headwater preauthkeys create`), read when the machine is not logged
        in. Null: somebody logs in by hand.
      '';
    };
    hostname = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Name of the node; null means the machine's own.";
    };
    routes = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "192.168.1.0/24" ];
      description = "Subnet routes that the node offers; an administrator approves them.";
    };
    exitNode = mkOption {
      type = types.bool;
      default = false;
      description = "Offer the node as an exit node.";
    };
    acceptRoutes = mkOption {
      type = types.nullOr types.bool;
      default = null;
      description = "Use the subnet routes of other nodes; null leaves it as it is on the machine.";
    };
    useExitNode = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "gateway";
      description = ''
        Name or address of the exit node that the machine's traffic takes; an empty text means none, null
        leaves it as it is on the machine.
      '';
    };
    port = given types.port "UDP port for direct paths;" // { example = 41641; };
    interfaceName = given types.str "Name of the network interface;" // { example = "tailscale0"; };
    permitCertUid = given types.str "User that may fetch the node's certificates;" // { example = "caddy"; };
    caFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "Authority to trust, for a server with `tls.mode: local_ca`; no secret.";
    };
    extraSetFlags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "--ssh" "--accept-dns=false" ];
      description = "Further flags of `tailscale set`, which take effect at each switch.";
    };
    extraFlags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "--advertise-tags=tag:web" ];
      description = "Further flags of `tailscale up`, which take effect when the machine enrols, and not later.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.match "https?://[^/]+/?" cfg.serverUrl != null;
        message = "${key "serverUrl"}: found \"${cfg.serverUrl}\"; allowed: https://HOST or https://HOST:PORT; fix: write the server_url of the control server, without a path";
      }
      {
        assertion = cfg.authKeyFile == null || (builtins.isString cfg.authKeyFile
          && lib.hasPrefix "/" cfg.authKeyFile && !values.inStore config.environment.etc cfg.authKeyFile);
        message = "${key "authKeyFile"}: found ${values.show cfg.authKeyFile}; allowed: an absolute path outside the Nix store, which everybody reads; fix: name a file that sops-nix, agenix or you put on the machine, as text, or leave it out and log in by hand";
      }
      {
        assertion = !lib.any enrolling (cfg.extraFlags ++ cfg.extraSetFlags);
        message = "${key "extraFlags"}: found --login-server or --auth-key; allowed: other flags of tailscale up; fix: use serverUrl and authKeyFile: a key that stands here is in the store, which everybody reads";
      }
      {
        assertion = !lib.any setting (cfg.extraFlags ++ cfg.extraSetFlags);
        message = "${key "extraFlags"}: found a flag that an option sets; allowed: other flags; fix: use hostname, routes, exitNode, acceptRoutes and useExitNode";
      }
    ];
    services.tailscale = {
      enable = true;
      authKeyFile = lib.mkIf (builtins.isString cfg.authKeyFile) cfg.authKeyFile;
      port = lib.mkIf (cfg.port != null) cfg.port;
      interfaceName = lib.mkIf (cfg.interfaceName != null) cfg.interfaceName;
      permitCertUid = lib.mkIf (cfg.permitCertUid != null) cfg.permitCertUid;
      openFirewall = lib.mkDefault true;
      useRoutingFeatures = lib.mkIf (serves || uses)
        (lib.mkDefault (if serves && uses then "both" else if serves then "server" else "client"));
      # Said at the enrolment already, so that the node never has another name, nor lacks a route.
      extraUpFlags = [ "--login-server=${cfg.serverUrl}" ] ++ flags ++ cfg.extraFlags;
      extraSetFlags = flags ++ cfg.extraSetFlags;
    };
    systemd.services.tailscaled.environment = lib.mkIf (cfg.caFile != null) {
      SSL_CERT_FILE = "${cfg.caFile}";
    };
  };
}
