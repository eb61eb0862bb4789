# Order after a PostgreSQL of this machine. Without it the server would come up by its restarts.
{ config, lib, ... }:
let
  cfg = config.services.headwater;
  url = cfg.made.plan.value [ "database_url" ];
  host = "(localhost|127\\.[0-9.]+|\\[::1])?(:[0-9]*)?";
  # libpq's own parameter goes before the URL's host; a path is the folder of a socket.
  named = builtins.match ".*[?&]host(addr)?=([^&]*).*" url;
  isLocal =
    builtins.match "postgres(ql)?://([^@/?]*@)?${host}([/?].*)?" url != null
    && (named == null || builtins.match "(/|%2[Ff]|localhost|127\\.|::1)[^,]*" (builtins.elemAt named 1) != null);
in
{
  config = lib.mkIf (cfg.enable && cfg.role == "server" && config.services.postgresql.enable && isLocal) {
    # The target, of newer NixOS, stands for its roles and databases too.
    systemd.services.${cfg.made.facts.constants.server_unit}.after = [ "postgresql.service" "postgresql.target" ];
  };
}
