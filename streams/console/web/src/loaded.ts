// Data of a view: loaded at once, and again with the pulse, but never more often than `everyMs`.
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure } from "./api";
import { pulse, session } from "./state";

export type Loaded<T> = { data: T | null; failure: number | null };

export function useLoaded<T>(load: () => Promise<T>, key: string, everyMs: number): Loaded<T> {
  const [loaded, setLoaded] = useState<Loaded<T> & { key: string }>({ data: null, failure: null, key });
  const last = useRef({ at: 0, key: "", isBusy: false });
  const beat = pulse.value;
  useEffect(() => {
    const now = Date.now();
    const isNew = last.current.key !== key;
    if (!isNew && (last.current.isBusy || now - last.current.at < everyMs)) return;
    const mine = { at: now, key, isBusy: true };
    last.current = mine;
    load()
      .then((data) => {
        if (last.current === mine) setLoaded({ data, failure: null, key });
      })
      .catch((error: unknown) => {
        const status = error instanceof Failure ? error.status : 0;
        if (status === 401) session.value = null;
        if (last.current === mine) setLoaded((old) => ({ data: old.key === key ? old.data : null, failure: status, key }));
      })
      .finally(() => (mine.isBusy = false));
  }, [key, beat]);
  return loaded.key === key ? loaded : { data: loaded.data, failure: null };
}
