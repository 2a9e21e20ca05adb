using System.Diagnostics;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Kernel.Tests.Child;
using Xunit;

namespace FCtrans.Kernel.Tests.Injection;

/// <summary>A process into which system calls are injected does not notice: not in a wait, a computation, or under signals.</summary>
public sealed class SyscallInjectorTests
{
    [Theory]
    [InlineData("poll", 300)]
    [InlineData("sleep", 300)]
    [InlineData("spin", 300)]
    [InlineData("storm", 300)]
    public void The_process_is_unharmed(string mode, int times)
    {
        using var child = new ChildProcess(mode);
        child.Ask("writers 2 0 64");
        for (int i = 0; i < times; i++)
        {
            Assert.Equal(child.Pid, SyscallInjector.Invoke(child.Pid, SystemCall.GetPid));
        }

        // A wait may legally have been started again so often that it never ended; now it must.
        child.WaitForProgress("loops", 5);
        child.WaitForProgress("writes", 1000);
        if (mode == "storm")
        {
            child.WaitForProgress("signals", 100);
        }

        Assert.Equal(0, child.State("errors"));
    }

    [Fact]
    public void All_six_arguments_arrive()
    {
        using var child = new ChildProcess("poll");
        const int Mmap = 9, Munmap = 11, PrivateAnonymous = 0x22, NoReplace = 0x100000;
        const long Address = 0x1234_5000_0000;
        Assert.Equal(Address, SyscallInjector.Invoke(child.Pid, Mmap, Address, 8192, 0, PrivateAnonymous | NoReplace, -1, 0));
        Assert.Contains(ProcessFiles.Mappings(child.Pid), m => m.Start == Address && m.End == Address + 8192);
        Assert.Equal(0, SyscallInjector.Invoke(child.Pid, Munmap, Address, 8192));
        Assert.Equal(0, child.State("errors"));
    }

    [Fact]
    public void An_error_of_the_call_is_its_result()
    {
        using var child = new ChildProcess("sleep");
        Assert.Equal(-Errno.EBADF, SyscallInjector.Invoke(child.Pid, SystemCall.Close, 9999));
    }

    [Fact]
    public void A_stopped_process_stays_stopped()
    {
        using var child = new ChildProcess("poll");
        using var process = PidFd.Open(child.Pid);
        process.SendSignal(Ptrace.SigStop);
        WaitForState(child.Pid, 'T');
        Assert.Equal(child.Pid, SyscallInjector.Invoke(child.Pid, SystemCall.GetPid));
        WaitForState(child.Pid, 'T');
        process.SendSignal(Ptrace.SigCont);
        child.WaitForProgress("loops", 2);
    }

    [Fact]
    public void A_traced_process_is_refused_by_name_of_its_tracer()
    {
        using var child = new ChildProcess("poll");
        SyscallInjector.Run(child.Pid, _ =>
        {
            var refused = Assert.Throws<InjectionException>(() => SyscallInjector.Invoke(child.Pid, SystemCall.GetPid));
            Assert.Contains($"process {Environment.ProcessId} does already", refused.Message);
            return true;
        });
        Assert.Equal(child.Pid, SyscallInjector.Invoke(child.Pid, SystemCall.GetPid));
    }

    [Fact]
    public void A_process_that_has_ended_is_told()
    {
        int pid;
        using (var child = new ChildProcess("poll"))
        {
            pid = child.Pid;
        }

        Assert.Throws<InjectionException>(() => SyscallInjector.Invoke(pid, SystemCall.GetPid));
    }

    [Fact]
    public void A_child_of_ours_is_refused_since_its_stops_would_look_like_its_end()
    {
        using var own = Process.Start("sleep", "60");
        try
        {
            var refused = Assert.Throws<InjectionException>(() => SyscallInjector.Invoke(own.Id, SystemCall.GetPid));
            Assert.Contains("child", refused.Reason);
        }
        finally
        {
            own.Kill();
            own.WaitForExit();
        }
    }

    [Fact]
    public void Its_own_signals_come_through()
    {
        using var child = new ChildProcess("storm");
        long before = child.State("signals");
        for (int i = 0; i < 200; i++)
        {
            SyscallInjector.Invoke(child.Pid, SystemCall.GetPid);
        }

        Assert.True(child.State("signals") > before);
        string blocked = ProcessFiles.ReadText($"/proc/{child.Pid}/status").Split('\n').First(l => l.StartsWith("SigBlk:", StringComparison.Ordinal));
        Assert.Equal("0000000000000000", blocked.Split('\t')[1]);
    }

    private static void WaitForState(int pid, char state)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            string text = ProcessFiles.ReadText($"/proc/{pid}/stat");
            if (text[text.LastIndexOf(')') + 2] == state)
            {
                return;
            }

            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(10), $"The process is not in state {state}: {text}");
            Thread.Yield();
        }
    }
}
