# A certificate of NixOS's own `security.acme`: its files, its group, and when it is there.
{ config, lib, ... }:
let
  cfg = config.services.headwater;
  inherit (cfg.made) isPlanned plan;
  host = cfg.useACMEHost;
  cert = config.security.acme.certs.${host};
  units = map (one: "${one.unit}.service") plan.services;

  ours = lib.unique (lib.filter (name: name != "") [
    (if plan.value [ "derp" "server" "enabled" ] then plan.value [ "derp" "server" "host" ] else "")
    (if cfg.role == "server" || plan.value [ "derp" "server" "host" ] == ""
    then plan.hostOf (plan.value [ "server_url" ]) else "")
  ]);
  names = [ cert.domain ] ++ cert.extraDomainNames;
  # "*.example.com" is any one label before it.
  covers = name: any: name == any
    || (lib.hasPrefix "*." any && builtins.match "[^.]+${lib.escapeRegex (lib.removePrefix "*" any)}" name != null);
  uncovered = lib.filter (name: !lib.any (covers name) names) ours;
in
{
  options.services.headwater.useACMEHost = lib.mkOption {
    type = lib.types.nullOr lib.types.str;
    default = null;
    example = "hw.example.com";
    description = ''
      A certificate of `security.acme.certs`: sets `tls.cert_file` and `tls.key_file`, adds its group to
      `supplementaryGroups`, starts the services after it, and reloads them when it was renewed.
    '';
  };

  config = lib.mkIf (cfg.enable && host != null) {
    assertions = [
      {
        assertion = !isPlanned || uncovered == [ ];
        message = "services.headwater.useACMEHost: found \"${host}\", a certificate for ${lib.concatStringsSep ", " names}; allowed: one for ${lib.concatStringsSep ", " uncovered}, which clients dial; fix: name another of security.acme.certs, or add the name to its extraDomainNames";
      }
    ];
    services.headwater = {
      settings.tls = {
        cert_file = lib.mkDefault "${cert.directory}/fullchain.pem";
        key_file = lib.mkDefault "${cert.directory}/key.pem";
      };
      supplementaryGroups = [ cert.group ];
    };
    security.acme.certs.${host}.reloadServices = units;
    # Wanted only: a server with an old certificate is better than none.
    systemd.services = lib.listToAttrs (map
      (one: lib.nameValuePair one.unit {
        wants = [ "acme-${host}.service" ];
        after = [ "acme-${host}.service" ];
      })
      plan.services);
  };
}
