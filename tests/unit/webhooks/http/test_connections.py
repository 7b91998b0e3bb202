"""Connections to receivers on loopback: which are kept, which are not, and how many there are; on both event loops."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter

import pytest

from app.webhooks.http import HungUp, NotConnected, Origin
from app.webhooks.http.connection import Connection
from tests.support.peers import (
    DEADLINE_S,
    NO_CONTENT,
    ORIGIN,
    REQUEST,
    Peer,
    answering,
    answers_the_first,
    ask,
    come_unread,
    kept,
    peering,
    pooling,
    silent,
    until,
)
from tests.support.sending import outgoing, sender


class TestKept:
    async def test_one_is_used_for_request_after_request(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            for _ in range(5):
                assert (await ask(pool, peer.origin)).status == 204

            assert [number for number, _ in peer.heads] == [1] * 5

    async def test_one_that_the_receiver_closed_meanwhile_is_not_used(self) -> None:
        async def once(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
            await peer.next_head(number, reader)
            writer.write(NO_CONTENT)
            writer.close()

        async with peering(once) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            await until(lambda: not pool._open)
            answer = await ask(pool, peer.origin)

            assert answer.status == 204
            assert [number for number, _ in peer.heads] == [1, 2]

    async def test_one_whose_end_is_not_announced_yet_is_not_used_either(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            (connection,) = kept(pool)
            connection.close()
            assert kept(pool) == [connection]
            answer = await ask(pool, peer.origin)

            assert answer.status == 204
            assert [number for number, _ in peer.heads] == [1, 2]

    async def test_one_that_ends_as_it_begins_is_remembered_by_nobody(self) -> None:
        async def hang_up(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
            writer.transport.abort()

        async with peering(hang_up) as peer, pooling() as pool:
            for _ in range(20):
                with pytest.raises(HungUp):
                    await ask(pool, peer.origin)
            await until(lambda: not pool._open)

            assert not pool._in_use_count

    async def test_one_on_which_something_came_unasked_is_not_used(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            peer.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await until(lambda: not pool._open)
            answer = await ask(pool, peer.origin)

            assert answer.status == 204
            assert [number for number, _ in peer.heads] == [1, 2]

    async def test_one_on_which_something_came_that_the_loop_has_not_read_is_not_used(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            come_unread(pool, peer, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            answer = await ask(pool, peer.origin)

            assert answer.status == 204
            assert [number for number, _ in peer.heads] == [1, 2]

    async def test_nor_one_whose_end_the_loop_has_not_read(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            come_unread(pool, peer, b"")
            answer = await ask(pool, peer.origin)

            assert answer.status == 204
            assert [number for number, _ in peer.heads] == [1, 2]

    async def test_an_answer_nobody_asked_for_delivers_no_later_event(self) -> None:
        async def takes_the_first(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
            while True:
                await peer.next_head(number, reader)
                refused = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
                writer.write(NO_CONTENT if len(peer.heads) == 1 else refused)

        async with peering(takes_the_first) as peer, sender() as one:
            first = await one.post(outgoing(peer.url, body=b""))
            come_unread(one._pool, peer, NO_CONTENT)
            second = await one.post(outgoing(peer.url, body=b""))

            assert (first.error, second.error) == (None, "status_500")

    async def test_one_is_closed_once_it_was_idle_for_long(self) -> None:
        async with peering(answering) as peer, pooling(keep_alive_s=0.05) as pool:
            await ask(pool, peer.origin)
            await until(lambda: not peer.open)

            assert not pool._hosts

    async def test_the_one_used_last_is_used_next(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            first, second = [await pool.take(peer.origin, DEADLINE_S) for _ in range(2)]
            for connection in (first, second):
                await connection.exchange(REQUEST, DEADLINE_S)
            for connection in (second, first):
                pool.give_back(peer.origin, connection)

            assert await pool.take(peer.origin, DEADLINE_S) is first
            pool.give_back(peer.origin, first)

    async def test_a_fresh_one_is_asked_for_beside_it(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            connection = await pool.take(peer.origin, DEADLINE_S, fresh=True)
            await connection.exchange(REQUEST, DEADLINE_S)
            pool.give_back(peer.origin, connection)

            assert [number for number, _ in peer.heads] == [1, 2]

    async def test_one_whose_answer_came_before_all_of_the_request_was_sent_is_not(self) -> None:
        async def early(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
            await reader.readexactly(10)
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await peer.over.wait()

        async with peering(early) as peer, pooling() as pool:
            connection = await pool.take(peer.origin, DEADLINE_S)
            answer = await connection.exchange(REQUEST + b"x" * (32 << 20), DEADLINE_S)

            assert (answer.status, connection.reusable) == (413, False)
            pool.give_back(peer.origin, connection)


class TestNothingIsSentTwice:
    async def test_a_kept_connection_that_breaks_under_a_request_is_one_attempt_that_failed(self) -> None:
        async def breaks_at_the_second(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
            await peer.next_head(number, reader)
            writer.write(NO_CONTENT)
            await peer.next_head(number, reader)
            writer.transport.abort()

        async with peering(breaks_at_the_second) as peer, sender() as one:
            outcomes = [await one.post(outgoing(peer.url)) for _ in range(2)]

            assert [outcome.error for outcome in outcomes] == [None, "reset"]
            assert [number for number, _ in peer.heads] == [1, 1]

    async def test_nor_is_a_question_for_permission_on_a_connection_of_its_own(self) -> None:
        async def allows(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
            await peer.next_head(number, reader)
            # The body never comes.
            writer.write(b"HTTP/1.1 200 OK\r\nwebhook-allowed-ORIGIN: *\r\nContent-Length: 10\r\n\r\n")

        async with peering(allows) as peer, sender() as one:
            answer = await one.options(
                peer.url,
                {"WebHook-Request-Origin": "a.example"},
                {"X-Key": "k", "webhook-request-origin": "no", "user-agent": "no"},
            )

            assert (answer.status, answer.error) == (200, None)
            assert answer.headers["WebHook-Allowed-Origin"] == "*"
            ((_, head),) = peer.heads
            assert head.startswith(b"OPTIONS / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % peer.port)
            assert b"WebHook-Request-Origin: a.example\r\n" in head
            assert b"X-Key: k\r\n" in head
            assert b"User-Agent: vault-stream\r\n" in head
            assert b": no\r\n" not in head
            await until(lambda: not peer.open)


class TestEnds:
    async def test_the_time_limit_closes_it(self) -> None:
        async with peering(silent) as peer, pooling() as pool:
            with pytest.raises(TimeoutError):
                await ask(pool, peer.origin, 0.1)
            await until(lambda: bool(peer.heads) and not peer.open)

            assert not pool._in_use_count

    async def test_the_time_limit_of_an_earlier_request_ends_no_later_one(self) -> None:
        async with peering(answers_the_first) as peer, pooling() as pool:
            await ask(pool, peer.origin, DEADLINE_S)
            (connection,) = kept(pool)
            later = asyncio.create_task(ask(pool, peer.origin, 2 * DEADLINE_S))
            await until(lambda: len(peer.heads) == 2)
            # As the timer of the first one does when it is due.
            connection._expire()
            await asyncio.sleep(0)
            assert not later.done()
            peer.writers[0].write(NO_CONTENT)

            assert (await later).status == 204

    async def test_nor_does_a_long_one_make_a_later_one_longer(self) -> None:
        async with peering(answers_the_first) as peer, pooling() as pool:
            await ask(pool, peer.origin, 1000 * DEADLINE_S)
            with pytest.raises(TimeoutError):
                await ask(pool, peer.origin, 0.1)
            await until(lambda: len(peer.heads) == 2 and not peer.open)

    async def test_a_time_limit_that_was_looked_at_too_early_still_holds(self) -> None:
        async with peering(answers_the_first) as peer, pooling() as pool:
            await ask(pool, peer.origin, DEADLINE_S)
            (connection,) = kept(pool)
            later = asyncio.create_task(ask(pool, peer.origin, 0.2))
            await until(lambda: len(peer.heads) == 2)
            connection._expire()

            with pytest.raises(TimeoutError):
                await later

    async def test_an_idle_one_keeps_no_timer_beyond_its_end(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            (connection,) = kept(pool)
            timer = connection._timer
            assert timer is not None
            connection.close()
            await connection.gone

            assert timer.cancelled()

    async def test_where_the_time_is_over_before_nothing_is_sent(self) -> None:
        async with peering(answering) as peer, pooling() as pool:
            connection = await pool.take(peer.origin, DEADLINE_S)
            with pytest.raises(TimeoutError):
                await connection.exchange(REQUEST, 0)
            pool.give_back(peer.origin, connection)
            assert (await ask(pool, peer.origin)).status == 204

            assert len(peer.heads) == 1

    async def test_giving_up_closes_it(self) -> None:
        async with peering(silent) as peer, pooling() as pool:
            asking = asyncio.create_task(ask(pool, peer.origin))
            await until(lambda: bool(peer.heads))
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: not peer.open)

            assert not pool._in_use_count

    async def test_closing_the_pool_ends_what_is_in_use_and_what_is_idle(self) -> None:
        async with peering(silent) as hanging, peering(answering) as peer, pooling() as pool:
            await ask(pool, peer.origin)
            asking = asyncio.create_task(ask(pool, hanging.origin))
            await until(lambda: bool(hanging.heads))
            await pool.close()
            with pytest.raises(HungUp):
                await asking

            await until(lambda: not peer.open and not hanging.open)
            assert not pool._open

    async def test_closing_the_pool_ends_who_waits_for_a_place_and_who_is_dialling(self) -> None:
        dialling, go_on = asyncio.Event(), asyncio.Event()

        async with peering(silent) as peer, pooling(max_connections=1) as pool:
            dial = pool._dial

            async def dial_slowly(origin: Origin) -> Connection:
                connection = await dial(origin)
                dialling.set()
                await go_on.wait()
                return connection

            pool._dial = dial_slowly
            asking = [asyncio.create_task(ask(pool, peer.origin)) for _ in range(2)]
            await dialling.wait()
            await pool.close()
            go_on.set()
            failures = await asyncio.gather(*asking, return_exceptions=True)

            assert [type(failure) for failure in failures] == [HungUp] * 2
            assert not pool._in_use_count
            await until(lambda: not peer.open)

    async def test_one_that_nobody_listens_for_takes_no_place(self) -> None:
        async with pooling(max_connections=1) as pool:
            for _ in range(3):
                with pytest.raises(NotConnected):
                    await ask(pool, ORIGIN)

            assert not pool._in_use_count


class TestLimits:
    async def test_who_finds_no_place_waits_for_one_in_turn(self) -> None:
        async with peering(answering) as peer, pooling(max_per_origin=2) as pool:
            held = [await pool.take(peer.origin, DEADLINE_S) for _ in range(2)]
            order: list[int] = []

            async def wait(number: int) -> None:
                await ask(pool, peer.origin)
                order.append(number)

            waiting = [asyncio.create_task(wait(number)) for number in range(4)]
            await until(lambda: len(pool._waiting) == 4)
            pool.give_back(peer.origin, held[0])
            await asyncio.gather(*waiting)

            assert order == [0, 1, 2, 3]
            pool.give_back(peer.origin, held[1])
            assert not pool._in_use_count

    async def test_who_waits_for_one_origin_does_not_stop_another(self) -> None:
        async with peering(answering) as busy, peering(answering) as free, pooling(max_per_origin=1) as pool:
            held = await pool.take(busy.origin, DEADLINE_S)
            waiting = asyncio.create_task(ask(pool, busy.origin))
            await until(lambda: len(pool._waiting) == 1)

            assert (await ask(pool, free.origin)).status == 204
            assert not waiting.done()
            pool.give_back(busy.origin, held)
            assert (await waiting).status == 204

    async def test_who_waited_too_long_leaves_the_place_to_others(self) -> None:
        async with peering(answering) as peer, pooling(max_connections=1) as pool:
            held = await pool.take(peer.origin, DEADLINE_S)
            with pytest.raises(TimeoutError):
                await pool.take(peer.origin, 0.05)
            pool.give_back(peer.origin, held)

            assert (await ask(pool, peer.origin)).status == 204
            assert not pool._waiting

    async def test_who_gives_up_as_the_place_comes_hands_it_on(self) -> None:
        async with peering(answering) as peer, pooling(max_connections=1) as pool:
            held = await pool.take(peer.origin, DEADLINE_S)
            first, second = (asyncio.create_task(ask(pool, peer.origin)) for _ in range(2))
            await until(lambda: len(pool._waiting) == 2)
            pool.give_back(peer.origin, held)
            first.cancel()

            assert (await second).status == 204
            with pytest.raises(asyncio.CancelledError):
                await first
            assert not pool._in_use_count

    async def test_an_idle_one_makes_room_for_another_receiver(self) -> None:
        async with peering(answering) as first, peering(answering) as second, pooling(max_connections=1) as pool:
            await ask(pool, first.origin)
            await ask(pool, second.origin)
            await until(lambda: not first.open)

            assert len(pool._open) == 1

    async def test_it_is_the_one_that_was_idle_for_longest(self) -> None:
        async with (
            peering(answering) as first,
            peering(answering) as second,
            peering(answering) as third,
            pooling(max_connections=2) as pool,
        ):
            for peer in (first, second, first):
                await ask(pool, peer.origin)
                # The finest step of an event loop's clock.
                await asyncio.sleep(0.002)
            await ask(pool, third.origin)
            await until(lambda: not second.open)

            assert (len(first.open), len(third.open)) == (1, 1)

    async def test_as_many_as_are_asked_at_once_and_none_more(self) -> None:
        async with peering(answering) as peer, pooling(max_connections=5) as pool:
            answers = await asyncio.gather(*(ask(pool, peer.origin) for _ in range(200)))

            assert {answer.status for answer in answers} == {204}
            assert len({number for number, _ in peer.heads}) <= 5
            assert len(peer.heads) == 200


async def test_a_closed_connection_takes_no_request() -> None:
    with pytest.raises(HungUp):
        await Connection().exchange(REQUEST, 1)
