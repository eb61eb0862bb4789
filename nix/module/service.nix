# The server's unit, its sockets, its user, and the kernel's settings.
{ config, lib, ... }:
let
  cfg = config.services.headwater;
  inherit (cfg.made) facts plan unit;
  inherit (facts) constants;
  serve = lib.filter (one: one.command == "serve") plan.services;
in
{
  options.services.headwater = {
    user = lib.mkOption {
      type = lib.types.str;
      default = constants.user;
      description = "The user that the services run as. One of another name is not made here.";
    };
    group = lib.mkOption {
      type = lib.types.str;
      default = constants.group;
      description = "Its group, which may use the command line. One of another name is not made here.";
    };
    supplementaryGroups = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "acme" ];
      description = "Further groups of the service, like the one that may read the certificate.";
    };
    kernelSettings = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Raise the limits of the kernel that thousands of clients reach.";
    };
  };

  config = lib.mkIf cfg.enable {
    users.users = lib.mkIf (cfg.user == constants.user) {
      ${constants.user} = {
        isSystemUser = true;
        inherit (constants) description;
        inherit (cfg) group;
        home = "${constants.state_root}/${plan.stateDirectory}";
      };
    };
    users.groups = lib.mkIf (cfg.group == constants.group) { ${constants.group} = { }; };
    environment.systemPackages = [ cfg.package ];
    boot.kernel.sysctl = lib.mkIf cfg.kernelSettings (lib.mapAttrs (_: lib.mkDefault) facts.sysctl);

    systemd.services = lib.listToAttrs (map (one: lib.nameValuePair one.unit (unit.service one)) serve);
    systemd.sockets = lib.mkMerge (map unit.sockets serve);
  };
}
