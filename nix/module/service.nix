# The server's unit, its sockets, its user, and the kernel's settings.
{ config, lib, headwater, ... }:
let
  inherit (headwater) facts plan unit;
  inherit (facts) constants;
  cfg = config.services.headwater;
  serve = lib.filter (one: one.command == "serve") plan.services;
in
{
  options.services.headwater = {
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
    users.users.${constants.user} = {
      isSystemUser = true;
      inherit (constants) group description;
      home = "${constants.state_root}/${plan.stateDirectory}";
    };
    users.groups.${constants.group} = { };
    environment.systemPackages = [ cfg.package ];
    boot.kernel.sysctl = lib.mkIf cfg.kernelSettings (lib.mapAttrs (_: lib.mkDefault) facts.sysctl);

    systemd.services = lib.listToAttrs (map (one: lib.nameValuePair one.unit (unit.service one)) serve);
    systemd.sockets = lib.mkMerge (map unit.sockets serve);
  };
}
