# The NixOS options that our modules set, with types where a mistake would matter.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  string = mkOption { type = types.str; default = ""; };
  flag = default: mkOption { type = types.bool; inherit default; };
  any = mkOption { type = types.attrsOf types.anything; default = { }; };
  directive = with types; oneOf [ bool int str (listOf (oneOf [ bool int str ])) ];
  directives = mkOption { type = types.attrsOf directive; default = { }; };
  triggers = mkOption { type = types.listOf types.raw; default = [ ]; };
  unit = {
    description = string;
    wantedBy = strings;
    wants = strings;
    after = strings;
    before = strings;
    requires = strings;
    unitConfig = directives;
    restartTriggers = triggers;
    reloadTriggers = triggers;
  };
in
{
  options = {
    assertions = mkOption { type = types.listOf types.raw; default = [ ]; };
    warnings = strings;
    environment.etc = mkOption {
      default = { };
      type = types.attrsOf (types.submodule {
        options = {
          source = mkOption { type = types.raw; };
          mode = mkOption { type = types.str; default = "symlink"; };
        };
      });
    };
    environment.systemPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    boot = any;
    disko = any;
    fileSystems = any;
    nix = any;
    services.caddy = any;
    services.nginx = any;
    services.openssh = any;
    services.tailscale = any;
    networking.defaultGateway = string;
    security.sudo = any;
    # As the real one has it, as far as somebody reads it.
    security.acme = {
      acceptTerms = flag false;
      defaults = any;
      certs = mkOption {
        default = { };
        type = types.attrsOf (types.submodule ({ name, ... }: {
          options = {
            directory = mkOption { type = types.str; default = "/var/lib/acme/${name}"; };
            domain = mkOption { type = types.str; default = name; };
            extraDomainNames = strings;
            group = mkOption { type = types.str; default = "acme"; };
            dnsProvider = mkOption { type = types.nullOr types.str; default = null; };
            environmentFile = mkOption { type = types.nullOr types.str; default = null; };
            reloadServices = strings;
          };
        }));
      };
    };
    services.postgresql = {
      enable = flag false;
      ensureDatabases = strings;
      ensureUsers = mkOption { type = types.listOf types.anything; default = [ ]; };
    };
    time = any;
    virtualisation = any;
    zramSwap = any;
    networking.hostName = string;
    networking.nftables.enable = flag false;
    networking.useDHCP = flag true;
    networking.firewall = {
      enable = flag true;
      allowedTCPPorts = mkOption { type = types.listOf types.port; default = [ ]; };
      allowedUDPPorts = mkOption { type = types.listOf types.port; default = [ ]; };
    };
    system.stateVersion = string;
    system.autoUpgrade = any;
    system.build = mkOption {
      type = types.attrsOf types.raw;
      default.nixos-rebuild = "/nix/store/00000000000000000000000000000000-nixos-rebuild";
    };
    users.users = mkOption { type = types.attrsOf types.anything; default = { }; };
    users.groups = mkOption { type = types.attrsOf types.anything; default = { }; };
    systemd.tmpfiles.rules = strings;
    systemd.services = mkOption {
      default = { };
      type = types.attrsOf (types.submodule {
        options = unit // {
          serviceConfig = directives;
          environment = mkOption { type = types.attrsOf types.str; default = { }; };
          path = mkOption { type = types.listOf types.raw; default = [ ]; };
          script = mkOption { type = types.lines; default = ""; };
          postStart = mkOption { type = types.lines; default = ""; };
          stopIfChanged = flag true;
        };
      });
    };
    systemd.sockets = mkOption {
      default = { };
      type = types.attrsOf (types.submodule {
        options = unit // {
          socketConfig = directives;
          listenStreams = strings;
          listenDatagrams = strings;
        };
      });
    };
  };
}
