// The page: its parts and what is selected. Everything else comes from the store.

import { useCallback, useMemo, useState, useSyncExternalStore } from "react";
import type { Row } from "../model/rows";
import type { Store } from "../store/store";
import type { Place } from "../wire/hello";
import { Alerts } from "./Alerts";
import { Details } from "./Details";
import { EventList } from "./EventList";
import { HistoryBar } from "./HistoryBar";
import { PartitionTable } from "./PartitionTable";
import { RunList } from "./RunList";
import { TokenBar } from "./TokenBar";
import { Toolbar } from "./Toolbar";
import { type Commands, TopBar } from "./TopBar";

export function App({ store, commands }: { store: Store; commands: Commands }) {
  const snapshot = useSyncExternalStore(store.subscribe, store.getSnapshot);
  const [selected, setSelected] = useState<Row | null>(null);
  // Whoever asks for another place wants to see it.
  const places = useMemo(() => {
    const goTo = (place: Place) => {
      store.resume();
      commands.goTo(place);
    };
    return { ...commands, goTo };
  }, [store, commands]);
  const close = useCallback(() => setSelected(null), []);
  return (
    <div className="app">
      <TopBar snapshot={snapshot} commands={commands} />
      {snapshot.wantsToken ? <TokenBar show={commands.showToken} /> : null}
      <Alerts alerts={snapshot.alerts} dismiss={store.dismiss} />
      <div className={selected === null ? "columns" : "columns has-details"}>
        <div className="side">
          <PartitionTable partitions={snapshot.partitions} />
          <RunList
            runs={snapshot.runs}
            total={snapshot.runCount}
            filter={snapshot.filter}
            setFilter={store.setFilter}
          />
        </div>
        <main className="panel events" aria-labelledby="events-title">
          <Toolbar
            snapshot={snapshot}
            setFilter={store.setFilter}
            pause={store.pause}
            resume={store.resume}
            clearRows={store.clearRows}
          />
          <HistoryBar snapshot={snapshot} commands={places} />
          <EventList
            rows={snapshot.rows}
            version={snapshot.version}
            emptyText={emptyText(snapshot.filter, snapshot.connection.state)}
            selected={selected}
            select={setSelected}
          />
        </main>
        {selected === null ? null : <Details row={selected} framing={snapshot.framing} close={close} />}
      </div>
    </div>
  );
}

function emptyText(filter: string, state: string): string {
  if (filter !== "") {
    return "No row matches the filter.";
  }
  if (state === "catching_up" || state === "parked") {
    return "Connected. Waiting for history.";
  }
  return state === "live" ? "Connected. Waiting for the first event." : "Not connected yet.";
}
