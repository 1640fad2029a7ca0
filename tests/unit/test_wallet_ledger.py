"""The ledger on a real SQLite file: it balances after every step, whatever is tried."""

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.wallet import ledger
from cloud.wallet.seed import DEMO_BALANCE_FEN, seed_demo

PEOPLE = ["ann", "bo", "chen"]


@pytest.fixture
def database(tmp_path):
    made = SqlDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    tables.metadata.create_all(made.writer)
    yield made
    made.close()


def charge(tx, person, number, fen):
    return ledger.post(
        tx, f"purchase:{number}", f"purchase:{number}", {ledger.wallet_of(person): -fen, ledger.SALES: fen}, 1
    )


def test_a_wallet_is_never_overdrawn_and_the_callers_transaction_goes_on(database):
    def work(tx):
        seed_demo(tx, ["ann"], 1, amount_fen=1000)
        with pytest.raises(ledger.InsufficientFundsError):
            charge(tx, "ann", 1, 1001)
        assert charge(tx, "ann", 2, 1000)

    database.write_here(work)
    assert database.read_here(lambda tx: ledger.balance(tx, ledger.wallet_of("ann"))) == 0
    assert database.read_here(lambda tx: ledger.entries_of(tx, "purchase:1")) == {}
    assert database.read_here(ledger.problems) == []


def test_a_repeat_books_nothing_and_another_content_is_refused(database):
    def work(tx):
        seed_demo(tx, ["ann"], 1)
        assert charge(tx, "ann", 1, 700)
        assert not charge(tx, "ann", 1, 700)
        with pytest.raises(ledger.LedgerConflictError):
            charge(tx, "ann", 1, 800)

    database.write_here(work)
    assert database.read_here(lambda tx: ledger.balance(tx, ledger.wallet_of("ann"))) == DEMO_BALANCE_FEN - 700


@pytest.mark.parametrize("entries", [{}, {"a": 5}, {"a": 5, "b": -4}, {"a": 0, "b": 0}, {"a": 10**9, "b": -(10**9)}])
def test_what_does_not_balance_is_refused(database, entries):
    with pytest.raises(ValueError, match=r"balance|bounds"):
        database.write_here(lambda tx: ledger.post(tx, "t", "t", entries, 1))


@pytest.mark.parametrize("table", [tables.ledger_entry, tables.ledger_transaction])
@pytest.mark.parametrize("verb", ["update", "delete"])
def test_the_database_refuses_to_change_what_is_booked(database, table, verb):
    database.write_here(lambda tx: seed_demo(tx, ["ann"], 1))
    statement = delete(table) if verb == "delete" else update(table).values({"id": "9"})
    with pytest.raises(IntegrityError, match="append-only"):
        database.write_here(lambda tx: tx.execute(statement))


def test_a_tampered_balance_and_a_one_sided_entry_are_found(database):
    database.write_here(lambda tx: seed_demo(tx, ["ann"], 1))
    database.write_here(lambda tx: tx.execute(update(tables.ledger_account).values(balance_fen=5)))
    assert len(database.read_here(ledger.problems)) == 2
    database.write_here(lambda tx: tx.execute(tables.ledger_transaction.insert().values(id="x", cause="x", at=1)))
    assert any("transaction x" in line for line in database.read_here(ledger.problems))


def test_concurrent_charges_from_two_connections_never_overdraw(tmp_path):
    """Two processes in small: each with its own engine on the same file."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    first, second = SqlDatabase(url), SqlDatabase(url)
    tables.metadata.create_all(first.writer)
    first.write_here(lambda tx: seed_demo(tx, ["ann"], 1, amount_fen=1000))
    booked = []

    def charges(database, start):
        for number in range(start, start + 10):
            try:
                booked.append(database.write_here(lambda tx, number=number: charge(tx, "ann", number, 100)))
            except ledger.InsufficientFundsError:
                booked.append(False)

    threads = [threading.Thread(target=charges, args=(first, 0)), threading.Thread(target=charges, args=(second, 100))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(booked) == 10
    assert first.read_here(lambda tx: ledger.balance(tx, ledger.wallet_of("ann"))) == 0
    assert first.read_here(ledger.problems) == []
    first.close()
    second.close()


class LedgerMachine(RuleBasedStateMachine):
    """Top-ups, charges, refunds and repeats in any order, against a plain dictionary."""

    @initialize()
    def start(self):
        self.database = SqlDatabase("sqlite://")
        self.connection = self.database.writer.connect()
        tables.metadata.create_all(self.connection)
        self.balances = dict.fromkeys(PEOPLE, 0)
        self.charges = {}
        self.refunded = set()
        self.number = 0

    @rule(person=st.sampled_from(PEOPLE), fen=st.integers(1, 5_000))
    def top_up(self, person, fen):
        self.number += 1
        entries = {ledger.wallet_of(person): fen, ledger.FUNDING: -fen}
        assert ledger.post(self.connection, f"top_up:{self.number}", "top_up", entries, 1)
        self.balances[person] += fen

    @rule(person=st.sampled_from(PEOPLE), fen=st.integers(1, 5_000))
    def charge(self, person, fen):
        self.number += 1
        if fen > self.balances[person]:
            with pytest.raises(ledger.InsufficientFundsError):
                charge(self.connection, person, self.number, fen)
            return
        assert charge(self.connection, person, self.number, fen)
        self.balances[person] -= fen
        self.charges[self.number] = (person, fen)

    @rule(data=st.data())
    def repeat_or_refund(self, data):
        if not self.charges:
            return
        number = data.draw(st.sampled_from(sorted(self.charges)))
        person, fen = self.charges[number]
        if data.draw(st.booleans()):
            assert not charge(self.connection, person, number, fen)
            return
        entries = {ledger.wallet_of(person): fen, ledger.SALES: -fen}
        assert ledger.post(self.connection, f"refund:{number}", "refund", entries, 1) is (number not in self.refunded)
        if number not in self.refunded:
            self.refunded.add(number)
            self.balances[person] += fen

    @invariant()
    def it_adds_up(self):
        if not hasattr(self, "connection"):
            return
        assert ledger.problems(self.connection) == []
        for person, expected in self.balances.items():
            assert ledger.balance(self.connection, ledger.wallet_of(person)) == expected

    def teardown(self):
        if hasattr(self, "connection"):
            self.connection.rollback()
            self.connection.close()
            self.database.close()


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
