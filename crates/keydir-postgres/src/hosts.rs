//! Where the server may be, one address at a time.
//!
//! tokio-postgres by itself goes on to the next address after any failure. A wrong password would be sent to each of
//! them, and the last failure would hide the one that counts. libpq, too, stops where it is refused.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, SslNegotiation};

/// A config for each host of this one, in the order in which they are to be tried. A config that is wrong stays as it
/// is, for tokio-postgres to say so.
pub(crate) fn hosts(config: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    let is_wrong = (!hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len())
        || (ports.len() > 1 && ports.len() != count);
    if is_wrong || count == 0 {
        return vec![config.clone()];
    }
    let of = |index| {
        let mut one = without_hosts(config);
        match (hosts.get(index), addresses.get(index)) {
            (Some(Host::Unix(path)), None) => {
                // PostgreSQL has no TLS there.
                one.host_path(path).ssl_mode(SslMode::Disable);
            }
            (host, address) => {
                // Without a name tokio-postgres would not hand the connection over.
                match (host, address) {
                    (Some(Host::Tcp(name)), _) => one.host(name),
                    (_, address) => one.host(address.map(IpAddr::to_string).unwrap_or_default()),
                };
                if let Some(address) = address {
                    one.hostaddr(*address);
                }
                // It hands over each connection at once.
                one.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            }
        }
        one.port(ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432));
        one
    };
    let mut hosts: Vec<Config> = (0..count).map(of).collect();
    shuffle_if_random(&mut hosts, config);
    hosts
}

/// A config for each address of the one host.
///
/// # Errors
/// If the name cannot be resolved.
pub(crate) async fn addresses(config: Config) -> io::Result<Vec<Config>> {
    let ([Host::Tcp(name)], [], [port]) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports()) else {
        return Ok(vec![config]);
    };
    let found = lookup_host((name.as_str(), *port)).await;
    let found = found.map_err(|error| io::Error::new(error.kind(), format!("cannot resolve {name:?}: {error}")))?;
    let with = |address: SocketAddr| {
        let mut one = config.clone();
        one.hostaddr(address.ip());
        one
    };
    let mut addresses: Vec<Config> = found.map(with).collect();
    shuffle_if_random(&mut addresses, &config);
    match addresses.is_empty() {
        true => Err(io::Error::other(format!("{name:?} has no address"))),
        false => Ok(addresses),
    }
}

fn shuffle_if_random(places: &mut Vec<Config>, config: &Config) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        let random = RandomState::new();
        let mut numbered: Vec<_> = places.drain(..).enumerate().collect();
        numbered.sort_by_cached_key(|(number, _)| random.hash_one(number));
        places.extend(numbered.into_iter().map(|(_, place)| place));
    }
}

/// All of a config but where it leads to; user and password come with each attempt.
fn without_hosts(config: &Config) -> Config {
    let mut bare = Config::new();
    if let Some(name) = config.get_dbname() {
        bare.dbname(name);
    }
    if let Some(options) = config.get_options() {
        bare.options(options);
    }
    if let Some(name) = config.get_application_name() {
        bare.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        bare.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        bare.tcp_user_timeout(*timeout);
    }
    bare.keepalives(config.get_keepalives());
    bare.keepalives_idle(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        bare.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        bare.keepalives_retries(retries);
    }
    bare.target_session_attrs(config.get_target_session_attrs());
    bare.channel_binding(config.get_channel_binding());
    bare.load_balance_hosts(config.get_load_balance_hosts());
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_said_stays() {
        let config: Config = "host=a hostaddr=10.0.0.1 port=1 dbname=d options='-c x=1' application_name=n \
                              connect_timeout=4 tcp_user_timeout=5 keepalives=0 keepalives_idle=6 \
                              keepalives_interval=7 keepalives_retries=8 target_session_attrs=read-only \
                              channel_binding=require load_balance_hosts=random"
            .parse()
            .unwrap();
        let mut expected = config.clone();
        expected
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
        assert_eq!(hosts(&config), [expected]);
    }

    #[test]
    fn each_host_has_its_own() {
        let config: Config = "host=a,/run/pg,b port=1,2,3".parse().unwrap();
        let hosts = hosts(&config);
        let told = |one: &Config| (one.get_hosts().to_vec(), one.get_ports().to_vec(), one.get_ssl_mode());
        let tcp = |name: &str| vec![Host::Tcp(name.to_owned())];
        assert_eq!(told(&hosts[0]), (tcp("a"), vec![1], SslMode::Require));
        let socket = vec![Host::Unix("/run/pg".into())];
        assert_eq!(told(&hosts[1]), (socket, vec![2], SslMode::Disable));
        assert_eq!(told(&hosts[2]), (tcp("b"), vec![3], SslMode::Require));
        let by_address = super::hosts(&"hostaddr=10.0.0.1,::1".parse().unwrap());
        assert_eq!(told(&by_address[1]), (tcp("::1"), vec![5432], SslMode::Require));
        assert_eq!(by_address[1].get_hostaddrs().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_left_to_tokio_postgres() {
        for wrong in ["host=a,b hostaddr=10.0.0.1", "host=a,b port=1,2,3", "dbname=d"] {
            assert_eq!(hosts(&wrong.parse().unwrap()), [wrong.parse().unwrap()], "{wrong}");
        }
    }

    #[test]
    fn hosts_are_shuffled_on_demand() {
        let names: Vec<String> = (0..20).map(|number| format!("h{number}")).collect();
        let config: Config = format!("host={} load_balance_hosts=random", names.join(","))
            .parse()
            .unwrap();
        let order = || {
            hosts(&config)
                .iter()
                .map(|one| format!("{:?}", one.get_hosts()))
                .collect::<Vec<_>>()
        };
        let (first, second) = (order(), order());
        assert_ne!(first, second);
        let sorted = |mut order: Vec<String>| {
            order.sort();
            order
        };
        assert_eq!(sorted(first), sorted(second));
    }
}
