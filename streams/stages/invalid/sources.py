class SourceDesk:
    def __init__(self, rules):
        self.rules = rules

    def take(self, batch): ...
    def decide(self):
        return []

    def change_rules(self, rules): ...
    def snapshot(self):
        return {}

    def restore(self, snapshot): ...
