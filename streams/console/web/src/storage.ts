// What the browser remembers. Storage may be forbidden; then nothing is remembered.
export function stored(name: string): string | null {
  try {
    return localStorage.getItem(`campaign-streams.${name}`);
  } catch {
    return null;
  }
}

export function store(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`campaign-streams.${name}`);
    else localStorage.setItem(`campaign-streams.${name}`, value);
  } catch {
    // it holds for this visit only
  }
}
