//! CLIENT: who is connected.

use nexusd_admin::proto::{
    Client, Clients, KillClientRequest, ListClientsRequest, SetClientNameRequest,
};

use super::cut_off;
use crate::arguments::ClientAction;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{bytes, milliseconds, number, printable, yes};
use crate::remote::Remote;
use crate::table::Column::{Id, Number, Text};
use crate::table::{list, table};

pub(crate) async fn run(
    question: Option<ClientAction>,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    let nobody = |id: String| CliError::NoSuchClient { id, target: remote.target().clone() };
    match question.unwrap_or(ClientAction::List { limit: 1_000 }) {
        ClientAction::List { limit } => {
            let request = ListClientsRequest { client_id: String::new(), limit };
            let clients = remote.list_clients(request).await?;
            console.show(&clients, || clients_text(&console, &clients))
        }
        ClientAction::Info { id } => {
            let request = ListClientsRequest { client_id: id.clone(), limit: 1 };
            let found = remote.list_clients(request).await?.clients.pop();
            let client = found.ok_or_else(|| nobody(id))?;
            console.show(&client, || client_text(&console, &client))
        }
        ClientAction::Kill { id } => {
            let request = KillClientRequest { client_id: id.clone() };
            let answer = remote.kill_client(request).await?;
            if !answer.is_killed {
                return Err(nobody(id));
            }
            console.show(&answer, || format!("client {} is disconnected", printable(&id)))
        }
        ClientAction::SetName { id, name } => {
            let request = SetClientNameRequest { client_id: id.clone(), name: name.clone() };
            let answer = remote.set_client_name(request).await?;
            if !answer.is_renamed {
                return Err(nobody(id));
            }
            console.show(&answer, || {
                format!("client {} is called {}", printable(&id), printable(&name))
            })
        }
    }
}

/// Published and delivered ones.
fn messages(client: &Client) -> u64 {
    client.messages_in.saturating_add(client.messages_out)
}

fn clients_text(console: &Console, clients: &Clients) -> String {
    if clients.clients.is_empty() {
        return "no client is connected".to_owned();
    }
    let columns = [
        Id("ID"),
        Text("ADDRESS"),
        Number("SUBS"),
        Number("MSGS"),
        Text("CONNECTED"),
        Text("NAME"),
    ];
    let rows = clients.clients.iter().map(|client| {
        vec![
            client.client_id.clone(),
            client.address.clone(),
            number(client.subscriptions),
            number(messages(client)),
            milliseconds(client.connected_ms),
            client.name.clone(),
        ]
    });
    let more = cut_off(clients.is_truncated, "--limit shows up to 10,000");
    table(console, &columns, rows) + &more
}

fn client_text(console: &Console, client: &Client) -> String {
    let entries = [
        ("name", client.name.clone()),
        ("software", client.software.clone()),
        ("address", client.address.clone()),
        ("protocol", client.protocol.clone()),
        ("connected for", milliseconds(client.connected_ms)),
        ("silent for", milliseconds(client.silent_ms)),
        ("subscriptions", number(client.subscriptions)),
        ("published", number(client.messages_in)),
        ("delivered", number(client.messages_out)),
        ("topics bound", number(client.topics_bound)),
        ("buffered", bytes(client.buffered_bytes)),
        ("held back", yes(client.is_held_back).to_owned()),
        ("blocked", yes(client.is_blocked).to_owned()),
    ];
    list(console, &format!("Client {}", client.client_id), &entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_the_columns_that_are_promised() {
        let client = Client {
            client_id: "0-3-1".to_owned(),
            name: "mill".to_owned(),
            address: "127.0.0.1:40000".to_owned(),
            connected_ms: 125_000,
            subscriptions: 2,
            messages_in: 1_000,
            messages_out: 234,
            ..Client::default()
        };
        let expected = "\
ID     ADDRESS          SUBS   MSGS  CONNECTED  NAME
0-3-1  127.0.0.1:40000     2  1,234  2m 5s      mill";
        let clients = Clients { clients: vec![client], is_truncated: false };
        assert_eq!(clients_text(&Console::plain(), &clients), expected);
    }
}
