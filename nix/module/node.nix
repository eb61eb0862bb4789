# `services.headwater-node`: makes a NixOS machine a node of a Headwater tailnet, with a pre-auth key
# from a file. Needs nothing of the server's module.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.headwater-node;
  key = name: "services.headwater-node.${name}";
  isOurs = flag: lib.any (own: lib.hasPrefix own flag) [ "--login-server" "--auth-key" "--authkey" ];
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
      type = types.str;
      example = "/run/secrets/headwater-authkey";
      description = ''
        File with a pre-auth key (`headwater preauthkeys create`), read at the first start. An
        absolute path as text, outside the Nix store.
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
    caFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "Authority to trust, for a server with `tls.mode: local_ca`; no secret.";
    };
    extraFlags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "--ssh" ];
      description = "Further flags of `tailscale up`.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.match "https?://[^/]+/?" cfg.serverUrl != null;
        message = "${key "serverUrl"}: found \"${cfg.serverUrl}\"; allowed: https://HOST or https://HOST:PORT; fix: write the server_url of the control server, without a path";
      }
      {
        assertion = lib.hasPrefix "/" cfg.authKeyFile && !lib.hasPrefix "${builtins.storeDir}/" cfg.authKeyFile;
        message = "${key "authKeyFile"}: found \"${cfg.authKeyFile}\"; allowed: an absolute path outside the Nix store; fix: name a file that sops-nix, agenix or you put on the machine, as text";
      }
      {
        assertion = !lib.any isOurs cfg.extraFlags;
        message = "${key "extraFlags"}: found --login-server or --auth-key; allowed: other flags of tailscale up; fix: use serverUrl and authKeyFile, which keep the key off the command line";
      }
    ];
    services.tailscale = {
      enable = true;
      authKeyFile = cfg.authKeyFile;
      openFirewall = lib.mkDefault true;
      useRoutingFeatures = lib.mkIf (cfg.routes != [ ] || cfg.exitNode) (lib.mkDefault "server");
      extraUpFlags =
        [ "--login-server=${cfg.serverUrl}" ]
        ++ lib.optional (cfg.hostname != null) "--hostname=${cfg.hostname}"
        ++ lib.optional (cfg.routes != [ ]) "--advertise-routes=${lib.concatStringsSep "," cfg.routes}"
        ++ lib.optional cfg.exitNode "--advertise-exit-node"
        ++ cfg.extraFlags;
    };
    systemd.services.tailscaled.environment = lib.mkIf (cfg.caFile != null) {
      SSL_CERT_FILE = "${cfg.caFile}";
    };
  };
}
